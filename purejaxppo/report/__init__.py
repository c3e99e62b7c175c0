"""The report: one page with the curves of runs, which needs no network.

runs      logs, grouped by run and reduced to few points
catalog   which chart shows which metrics
charts    the charts of a page, as data
vega      the specification that draws a chart, and the JavaScript that reads it
sections  the parts of the page that are text: headline and findings
records   its tables of configuration, versions, machine and command
page      everything together, and the file

Nothing here imports JAX, so that a report takes no time to start. A run may come from
somebody else: its text is escaped, and the page allows our own scripts alone.
"""

STILL = "still.png"  # the picture in a run's folder that its page shows
