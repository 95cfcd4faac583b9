def fit_stochastic(*a, **k):
    raise RuntimeError
