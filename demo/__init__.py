"""`make demo`: the whole line on one machine, in five acts that are each checked."""
