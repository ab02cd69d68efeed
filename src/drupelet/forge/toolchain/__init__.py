"""Tools that are too large or too quarrelsome to be dependencies: built or installed once, beside the forge."""
