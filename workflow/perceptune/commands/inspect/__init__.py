"""`perceptune inspect`: a local page that shows the results of a run.

`contents` finds the tables, `filters` reads a page's address, `answers`, `comparing`, `grouped` and
`rounds` query the tables, `exporting` writes a selection, `pictures` draws, `pages` collects what the
templates show, and `server` answers requests.
"""
