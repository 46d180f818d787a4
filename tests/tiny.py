"The smallest model and loader that a `Trainer` takes, where what is learned does not matter"
import torch

class Line(torch.nn.Module):
    def __init__(self, n=2):
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(n))
    def loss(self, b): return ((self.a-1)**2).mean(), {}

class Nothing:
    def to(self, device): return self

class Deals:
    def __iter__(self):
        while True: yield Nothing()
    def state_dict(self): return {}
    def load_state_dict(self, s): pass
