"""Self-supervised learning of music from raw audio."""

import os

# Threads that wait by spinning slow a step down tenfold as soon as anything else
# runs on the machine; OpenMP reads this when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
