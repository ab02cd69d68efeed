"""A key ceremony: the first keys of a fleet, made in the presence of people, step by step, with a signed record.

plan.py     who comes, which key is whose, on which medium; checked before anybody is called in
steps.py    what follows from a plan, in order. Pure
run.py      walks people through the steps; stops and goes on at any of them
record.py   what is filed afterwards: JSON signed by the root keys, and a page
"""
