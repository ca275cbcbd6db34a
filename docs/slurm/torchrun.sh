#!/bin/bash
# Run on every node, with NODE_RANK 0, 1, ... and HEAD, a name by which all reach node 0:
# HEAD=node0 NODES=2 NODE_RANK=1 GPUS=8 docs/slurm/torchrun.sh --config pusht_224 --data.path /shared/pusht
exec torchrun --nnodes="$NODES" --node_rank="$NODE_RANK" --nproc_per_node="$GPUS" \
  --master_addr="$HEAD" --master_port="${PORT:-29500}" \
  -m lewm fit "$@" --config ddp_multinode --trainer.num_nodes "$NODES" --trainer.devices "$GPUS" --resume auto
