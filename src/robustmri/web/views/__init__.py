"""What each view shows: a file a view, each with functions from ids to plain data."""
