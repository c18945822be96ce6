"""Messages, identifiers, deadlines and the event log, which all managers share."""
