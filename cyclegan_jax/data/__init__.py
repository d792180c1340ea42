"""From files, data sets or a drawing to batches of unpaired images."""
