"""Reading for a study: a worklist is worked through case by case (`desk`), in a section of the window (`section`,
`panel`)."""
