"""The simulated Raspberry Pi, for tests: the demo's own."""

from demo.fake_pi import MIB, FakePi

__all__ = ["MIB", "FakePi"]
