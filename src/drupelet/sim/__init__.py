"""A simulated world that runs the production decisions: seeded, without real time, with power cuts anywhere."""
