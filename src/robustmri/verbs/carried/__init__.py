"""What goes into every bundle: how it is installed and run, and in which stages."""
