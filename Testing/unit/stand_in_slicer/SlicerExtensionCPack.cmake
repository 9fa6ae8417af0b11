stand_in_record(cpack ${PROJECT_NAME})
