"""The fleet server: who is in the fleet, which release goes to whom, what the evidence says, and what was decided.

machine, plan, assess, cohort, selector   decide; pure
store, director, reconcile                keep and carry out
intake, device_api                        what devices say
api, read, views                          what people and pages ask
"""
