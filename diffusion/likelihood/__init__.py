"""How probable a model holds data to be, in nats per sample: two ways, both between two finite log-SNRs.

    bound   -log p(x_0) <= prior + diffusion + reconstruction        the variational bound (Kingma et al. 2021)
    ode     log p(x_0)   = log p(x_1) + int tr(df / dx), dx = f dt   the probability-flow ODE (Song et al. 2021b)
    pixels  from a density to the probability of 8-bit levels, and to bits per dimension
"""
