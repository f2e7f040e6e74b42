"""From folders of runs to a report: what is read, how it is summed up, drawn and laid out on a page."""
