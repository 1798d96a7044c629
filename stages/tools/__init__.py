"""Tools that a model may call: functions of a file, a Python interpreter, a corpus, MCP servers."""
