"""FedAvg: the server's weights are the mean of what the clients send (McMahan et al., AISTATS 2017)."""

from graft.federated.base import Federated


class FedAvg(Federated):
    """As the base is; `server_momentum` makes it FedAvgM (Hsu, Qi and Brown, 2019)."""

    name = "fedavg"
