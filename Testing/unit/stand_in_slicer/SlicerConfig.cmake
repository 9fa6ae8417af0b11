# Stands in for the package of 3D Slicer: find_package(Slicer) finds this file, and each macro that the extension calls
# writes what it was given to ${STAND_IN_RECORD}, one line a call: its name and its arguments, separated by "|".
# The names of the files and the signatures follow Slicer's CMake/SlicerConfig.cmake.in and UseSlicer.cmake.in.
set(Slicer_USE_PYTHONQT ON)
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionGenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionCPack.cmake")
file(WRITE "${STAND_IN_RECORD}" "")
