"""The update agent: decides by a table, journals before it acts, and always leaves one verified release serving."""
