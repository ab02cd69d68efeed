"""Tools that are too large or too quarrelsome to be dependencies: built or installed once, beside the forge.

NotFound (core)
`- ToolMissing        it has not been built here, or for another version of Drupelet; `fix` is the command
Unavailable (core)
`- ToolFailed         a tool, or the building of one, ended badly: its last words, and where its log is
Untrusted (core)
`- SourceUntrusted    what was downloaded is not what this version of Drupelet names, or tries to get out of its folder
"""
