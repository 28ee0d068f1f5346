"""Programs of torch.export: `program` reads them into the solver's graph and carries out the plan."""
