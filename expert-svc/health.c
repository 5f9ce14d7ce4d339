/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/health.h"

#include <math.h>
#include <stdio.h>

static const struct {
	const char *name, *help;
} values[KN_HEALTH_COUNT] = {
	[KN_HEALTH_MEMORY_USED] = { "cadre_device_memory_used_bytes",
		"memory of the device that is in use, by anybody" },
	[KN_HEALTH_MEMORY_TOTAL] = { "cadre_device_memory_bytes", "memory of the device" },
	[KN_HEALTH_BUSY] = { "cadre_device_busy_ratio", "share of the last moments in which the device computed" },
	[KN_HEALTH_MEMORY_BUSY] = { "cadre_device_memory_busy_ratio",
		"share of the last moments in which the device's memory was read or written" },
	[KN_HEALTH_SM_CLOCK] = { "cadre_device_clock_hertz", "clock of the device's processors" },
	[KN_HEALTH_MEMORY_CLOCK] = { "cadre_device_memory_clock_hertz", "clock of the device's memory" },
	[KN_HEALTH_POWER] = { "cadre_device_power_watts", "power that the device draws" },
	[KN_HEALTH_TEMPERATURE] = { "cadre_device_temperature_celsius", "temperature of the device" },
	[KN_HEALTH_ECC_CORRECTED] = { "cadre_device_ecc_errors",
		"errors of the device's memory since its driver was loaded" },
	[KN_HEALTH_ECC_UNCORRECTED] = { "cadre_device_ecc_errors",
		"errors of the device's memory since its driver was loaded" },
};

static const char *const kinds[KN_HEALTH_COUNT] = {
	[KN_HEALTH_ECC_CORRECTED] = "corrected",
	[KN_HEALTH_ECC_UNCORRECTED] = "uncorrected",
};

static const char *const reasons[KN_THROTTLE_COUNT] = {
	[KN_THROTTLE_POWER] = "power",
	[KN_THROTTLE_HEAT] = "heat",
	[KN_THROTTLE_POWER_BRAKE] = "power_brake",
	[KN_THROTTLE_HARDWARE] = "hardware",
};

static void show_value(struct ex_health *health, struct cad_metrics *metrics, enum kn_health_value which, double value)
{
	const struct cad_label kind = { "kind", kinds[which] };
	if (!health->values[which] && isnan(value))
		return;
	if (!health->values[which])
		health->values[which] =
			cad_metrics_gauge(metrics, values[which].name, values[which].help, &kind, kinds[which] != NULL);
	cad_gauge_set(health->values[which], value);
}

static void show_reason(struct ex_health *health, struct cad_metrics *metrics, enum kn_throttle reason, bool is_so)
{
	if (!health->throttled[reason])
		health->throttled[reason] = cad_metrics_gauge(metrics, "cadre_device_throttled",
			"1: the device's clocks are lower than they could be, by this",
			&(struct cad_label){ "reason", reasons[reason] }, 1);
	cad_gauge_set(health->throttled[reason], is_so);
}

void ex_health_show(struct ex_health *health, struct cad_metrics *metrics, const struct kn_health *now)
{
	for (unsigned i = 0; i < KN_HEALTH_COUNT; i++)
		show_value(health, metrics, (enum kn_health_value)i, now->values[i]);
	for (unsigned i = 0; i < KN_THROTTLE_COUNT && now->throttling_known; i++)
		show_reason(health, metrics, (enum kn_throttle)i, now->throttled >> i & 1);
}

void ex_health_throttled_text(const struct kn_health *now, char text[EX_THROTTLED_BYTES])
{
	size_t length = 0;
	*text = '\0';
	for (unsigned i = 0; i < KN_THROTTLE_COUNT && length < EX_THROTTLED_BYTES; i++)
		if (now->throttled >> i & 1)
			length += (size_t)snprintf(
				text + length, EX_THROTTLED_BYTES - length, "%s%s", length > 0 ? ", " : "", reasons[i]);
}
