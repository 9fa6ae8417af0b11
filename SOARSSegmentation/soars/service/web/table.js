"use strict";
sortable(document.getElementById("cases"));
