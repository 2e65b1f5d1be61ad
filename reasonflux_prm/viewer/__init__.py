"""Scored and labelled traces to look at: in the terminal (`terminal.show`), as one HTML file (`html.write_report`)."""
