"""The commands of the command line, one file per room; printing is done here and nowhere below."""
