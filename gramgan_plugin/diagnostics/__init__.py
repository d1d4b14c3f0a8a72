"""What this machine has and lacks for a run: facts for ``basicsr doctor``, each with a reason and a cure if bad.

Nothing here raises because something is absent or broken: that is what it reports.
"""
