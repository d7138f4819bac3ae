"""The course as a site of plain files, made from what is committed, that needs no server."""
