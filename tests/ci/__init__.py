"""Tests of the ci room."""
