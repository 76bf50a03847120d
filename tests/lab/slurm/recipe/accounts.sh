#!/bin/bash
# Inside the root, once, with slurmdbd running: who computes for whom. The cluster is called lab.
set -euo pipefail
sacctmgr -iQ add cluster lab
sacctmgr -iQ add qos short MaxWall=00:30:00
sacctmgr -iQ add qos scavenge Priority=0
sacctmgr -iQ add qos urgent Priority=1000 Preempt=scavenge
sacctmgr -iQ add account phys,chem,services Cluster=lab
sacctmgr -iQ add user alice Cluster=lab Account=phys,chem DefaultAccount=phys
sacctmgr -iQ add user bob Cluster=lab Account=chem
sacctmgr -iQ add user ebhpc Cluster=lab Account=services AdminLevel=Operator
sacctmgr -iQ modify account where Cluster=lab name=phys,chem,services set QOS=normal,short,scavenge,urgent DefaultQOS=normal
