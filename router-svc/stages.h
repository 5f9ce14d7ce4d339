/* SPDX-License-Identifier: Apache-2.0 */
/* What a step is divided into: its stages, in the order of the data path, by which its time is
 * counted (the names are those of the metrics); and its rows, into micro-batches. */
#ifndef CADRE_ROUTER_SVC_STAGES_H
#define CADRE_ROUTER_SVC_STAGES_H

enum { RT_MICRO_BATCHES_MAX = 4 };

enum rt_stage {
	RT_STAGE_EMBED,
	RT_STAGE_ATTENTION,
	RT_STAGE_GATE,
	RT_STAGE_DISPATCH,
	RT_STAGE_SHARED,
	RT_STAGE_WAIT,
	RT_STAGE_COMBINE,
	RT_STAGE_DENSE,
	RT_STAGE_HEAD,
	RT_STAGE_SAMPLE,
	RT_STAGE_COUNT
};
extern const char *const rt_stage_names[RT_STAGE_COUNT];

#endif
