"""ONNX files into artefacts, artefacts into runners. One module a vendor, imported when it is activated.

`artefacts` builds and keeps, `load` runs. Called by `serve/`, by `checks/` (in a child process: `python -m
graylift.engine`) and by tests; this package knows nothing of revisions, releases or HTTP.
"""
