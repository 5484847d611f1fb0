"""What grows in each process, by its events rather than by hours: its real code, as fast as it goes."""
