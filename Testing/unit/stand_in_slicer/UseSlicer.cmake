function(stand_in_record)
  string(REPLACE ";" "|" line "${ARGN}")
  file(APPEND "${STAND_IN_RECORD}" "${line}\n")
endfunction()

function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords given to slicerMacroBuildScriptedModule(): \"${MY_UNPARSED_ARGUMENTS}\"")
  endif()
  stand_in_record(module ${MY_NAME} ${CMAKE_CURRENT_SOURCE_DIR})
  stand_in_record(scripts ${MY_SCRIPTS})
  stand_in_record(resources ${MY_RESOURCES})
endfunction()

function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  stand_in_record(unittest ${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT})
endfunction()

include(CTest) # sets BUILD_TESTING, as Slicer does for an extension
