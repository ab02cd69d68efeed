"""Pipelines for other people's repositories: what `drupelet ci init` writes."""
