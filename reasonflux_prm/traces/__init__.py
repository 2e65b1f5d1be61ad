"""Any reasoning trace in and out.

In: `sources` turns files, pipes and data sets into rows, `formats` turns a row into traces, `read` joins the two.
Out: `write` holds the rows on disk and the atomic files, `manifest` what a run says of itself.
"""
