"""Scored traces to look at: in the terminal (`terminal.show`) and as one HTML file (`html.write_report`)."""
