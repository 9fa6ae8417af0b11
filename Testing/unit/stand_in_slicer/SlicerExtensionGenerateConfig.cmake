foreach(field
    HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS STATUS ENABLED BUILD_SUBDIRECTORY DEPENDS
    README_FILE LICENSE_FILE)
  if(NOT DEFINED EXTENSION_${field})
    message(FATAL_ERROR "EXTENSION_${field} is not set")
  endif()
  stand_in_record(extension ${field} "${EXTENSION_${field}}")
endforeach()
