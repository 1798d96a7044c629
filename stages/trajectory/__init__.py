"""Trajectories: messages with tool calls and their results, and the stages that check them."""
