"""Scripts that run in a tool environment: Drupelet cannot be imported there, and nothing here imports them.

`*_convert.py FOLDER OUT QUANTIZATION` makes OUT from a staged checkpoint (see `forge/formats/staging.py`).
`*_run.py MODEL CONTEXT THREADS` answers questions about a model, a JSON object a line (see `wireline.py`).
"""
