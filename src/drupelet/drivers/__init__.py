"""Rollouts through other update systems (Mender, balena, hawkBit), one file each behind one port."""
