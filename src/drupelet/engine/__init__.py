"""Running llama.cpp: one supervised process a model, reached over a private Unix socket.

The library (`xllamacpp`) is imported only inside the child, so that a crash, a leak or a hang of native code costs a
child and never the process that serves the device.
"""
