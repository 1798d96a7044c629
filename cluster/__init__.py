"""Who runs it: the only folder that imports ray."""
