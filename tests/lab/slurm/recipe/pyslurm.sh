#!/bin/bash
# pyslurm.sh ROOT WHERE: make WHERE/slurm, the headers of the Slurm in ROOT as pyslurm 25.11 expects them.
#
# pyslurm 25.11 says that it wants Slurm 25.11. What differs in 26.05: two names have gone (slurm_free_ctl_conf is now
# slurm_free_conf, and an error number), and the reservation's name that slurm_create_reservation returns must not be
# freed with free(), as pyslurm does, because xmalloc made it.
set -euo pipefail
include=$1/usr/include/slurm
mkdir -p "$2/slurm"
cp "$include"/* "$2/slurm/"
sed -i 's/\(SLURM_VERSION_NUMBER\) .*/\1 0x190b00/' "$2/slurm/slurm_version.h"
cat >"$2/slurm/slurm.h" <<'HEADER'
#ifndef LAB_SLURM_H
#define LAB_SLURM_H
#define SLURM_BACKWARD_COMPAT 1
#include "/usr/include/slurm/slurm.h"
#define slurm_free_ctl_conf slurm_free_conf
#ifndef ESLURM_ERROR_ON_DESC_TO_RECORD_COPY
#define ESLURM_ERROR_ON_DESC_TO_RECORD_COPY 2126
#endif
#include <string.h>
static inline char *lab_create_reservation(resv_desc_msg_t *wanted) {
  char *name = slurm_create_reservation(wanted);
  return name ? strdup(name) : 0;
}
#define slurm_create_reservation lab_create_reservation
#endif
HEADER
