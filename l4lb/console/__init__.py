"""What the commands of both programs share: how answers look, how errors end a command, the live view."""
