"""What a pipeline asks of a release: are its files right, what changes, what is handed on; and the pipeline itself.

LintError (BadInput)     findings in files; each has been shown
PipelineThere (Conflict) a pipeline file is there already and is another one
"""
