"""loopnb in an ipykernel: its loop's guard, messages, output, replies, subshells and end."""
