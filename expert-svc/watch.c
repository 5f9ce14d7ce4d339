/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/watch.h"

#include "common/base/clock.h"
#include "common/base/condition.h"
#include "common/base/log.h"
#include "expert-svc/health.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { EVERY_S = 1 };

struct ex_watch {
	struct ex_watch_options options;
	struct cad_gauge *failed_gauge; /* NULL: no metrics */
	struct ex_health shown;
	bool has_failed;
	bool is_silent; /* nothing is known of its state */
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t change;
	/* under the lock */
	bool look, stop;
	struct kn_health health;
	bool has_health;
};

static void look_at_health(struct ex_watch *watch)
{
	char why[KN_FAILURE_BYTES];
	struct kn_health health;
	struct kn_device *device = watch->options.device;

	if (!device->ops->health || watch->is_silent)
		return;
	watch->is_silent = !device->ops->health(device, &health, why);
	if (watch->is_silent) {
		cad_log_info("expert", "the device's clocks, power, temperature and errors are not shown",
			CAD_S("why", why));
		return;
	}
	if (watch->options.metrics)
		ex_health_show(&watch->shown, watch->options.metrics, &health);
	pthread_mutex_lock(&watch->lock);
	watch->health = health;
	watch->has_health = true;
	pthread_mutex_unlock(&watch->lock);
}

static void look(struct ex_watch *watch)
{
	char why[KN_FAILURE_BYTES];
	const struct kn_device *device = watch->options.device;

	if (!watch->has_failed) /* what is asked of a broken one may not come back */
		look_at_health(watch);
	if (watch->has_failed || !device->ops->failed(device, why))
		return;
	watch->has_failed = true;
	if (watch->failed_gauge)
		cad_gauge_set(watch->failed_gauge, 1);
	watch->options.failed(watch->options.context, why);
}

/* Until it is time, or there is reason; false: it is over. */
static bool wait_for_reason(struct ex_watch *watch)
{
	const struct timespec until = cad_condition_deadline(EVERY_S * CAD_NS_PER_S);
	pthread_mutex_lock(&watch->lock);
	while (!watch->look && !watch->stop &&
		pthread_cond_timedwait(&watch->change, &watch->lock, &until) != ETIMEDOUT)
		;
	watch->look = false;
	bool stop = watch->stop;
	pthread_mutex_unlock(&watch->lock);
	return !stop;
}

static void *run(void *argument)
{
	struct ex_watch *watch = argument;
	do
		look(watch);
	while (wait_for_reason(watch));
	return NULL;
}

static enum cad_status start(struct ex_watch *watch, struct cad_error *error)
{
	if (watch->options.metrics)
		watch->failed_gauge = cad_metrics_gauge(watch->options.metrics, "cadre_device_failed",
			"1: the device has failed, and this node is leaving", NULL, 0);
	watch->has_thread = pthread_create(&watch->thread, NULL, run, watch) == 0;
	return watch->has_thread
		? CAD_OK
		: cad_error_set(error, CAD_ERR_EXHAUSTED, "cannot start a thread for the device: see ulimit -u");
}

enum cad_status ex_watch_create(
	const struct ex_watch_options *options, struct ex_watch **watch, struct cad_error *error)
{
	struct ex_watch *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to watch the device");

	made->options = *options;
	pthread_mutex_init(&made->lock, NULL);
	cad_condition_init(&made->change);
	enum cad_status status = options->device->ops->failed ? start(made, error) : CAD_OK;
	if (status != CAD_OK) {
		ex_watch_destroy(made);
		return status;
	}
	*watch = made;
	return CAD_OK;
}

static void ask(struct ex_watch *watch, bool *what)
{
	pthread_mutex_lock(&watch->lock);
	*what = true;
	pthread_cond_signal(&watch->change);
	pthread_mutex_unlock(&watch->lock);
}

bool ex_watch_health(struct ex_watch *watch, struct kn_health *health)
{
	pthread_mutex_lock(&watch->lock);
	bool has = watch->has_health;
	*health = watch->health;
	pthread_mutex_unlock(&watch->lock);
	return has;
}

void ex_watch_look(struct ex_watch *watch) { ask(watch, &watch->look); }

void ex_watch_destroy(struct ex_watch *watch)
{
	if (!watch)
		return;
	if (watch->has_thread) {
		ask(watch, &watch->stop);
		pthread_join(watch->thread, NULL);
	}
	pthread_cond_destroy(&watch->change);
	pthread_mutex_destroy(&watch->lock);
	free(watch);
}
