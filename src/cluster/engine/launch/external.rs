//! External volumes: made by Docker's volume drivers when they are not there yet, and never deleted here.
//!
//! Docker has one name space for all volumes of the node, and the options of a driver may lead anywhere on it (`local` mounts whatever it is told to). So
//! where the owner is asked for host volumes, it is here too: only the owner's own volumes, as their labels say, and no options.

use bollard::models::{Volume as Found, VolumeCreateRequest};

use super::{Attempt, DockerError, End, MAX_TRIES, PAUSE, spec};
use crate::model::app::{DVDI_DRIVER, ExternalVolume, Mode};

impl Attempt<'_> {
    /// How the external volumes are mounted; they are there then.
    pub(super) async fn external_volumes(&mut self) -> Result<Vec<spec::External>, End> {
        let mut mounts = Vec::new();
        let launch = self.launch;
        for volume in launch.app.external_volumes() {
            self.check_owner_may_write(volume)?;
            let found = self.find_or_make(volume).await?;
            self.check(volume, &found)?;
            let target = spec::in_container(&volume.container_path);
            mounts.push(spec::External { name: volume.name.clone(), target, read_only: volume.mode == Mode::Ro });
        }
        Ok(mounts)
    }

    async fn find_or_make(&mut self, volume: &ExternalVolume) -> Result<Found, End> {
        let context = self.context;
        let wanted = VolumeCreateRequest {
            name: Some(volume.name.clone()),
            driver: Some(volume.driver().to_owned()),
            driver_opts: Some(volume.driver_options().into_iter().collect()),
            labels: Some(spec::volume_labels(self.launch, &context.settings.cluster_id)),
            cluster_volume_spec: None,
        };
        let look = async {
            let mut tries = 0;
            loop {
                let client = context.await_client().await;
                let outcome = match client.volume(&volume.name).await {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => client.create_volume(wanted.clone()).await,
                    Err(error) => Err(error),
                };
                match outcome {
                    Err(DockerError::Unreachable(_)) if tries < MAX_TRIES => tries += 1,
                    other => return other,
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        self.unless_cancelled(look).await?.map_err(|error| failed(volume, &explain(volume, &error)))
    }

    fn check_owner_may_write(&self, volume: &ExternalVolume) -> Result<(), End> {
        let has_more = volume.options.keys().any(|key| key != DVDI_DRIVER);
        if has_more && self.launch.account.is_some() {
            return Err(failed(volume, "options of volume drivers can give power over the node: an administrator has to write them"));
        }
        Ok(())
    }

    fn check(&self, volume: &ExternalVolume, found: &Found) -> Result<(), End> {
        // Docker adds the tag to the names of drivers that it manages itself.
        let plain = |driver: &str| driver.strip_suffix(":latest").unwrap_or(driver).to_owned();
        if plain(&found.driver) != plain(volume.driver()) {
            return Err(failed(volume, &format!("there is one of that name already, of the driver '{}'", found.driver)));
        }
        if self.launch.account.is_some() && !spec::is_own_volume(&found.labels, self.launch, &self.context.settings.cluster_id) {
            let words = "there is one of that name already that was not made for this owner: an administrator has to write it into the app";
            return Err(failed(volume, words));
        }
        Ok(())
    }
}

fn failed(volume: &ExternalVolume, words: &str) -> End {
    End::failed(format!("external volume '{}': {words}", volume.name))
}

/// Docker's words, and what they mean where they are about the driver.
fn explain(volume: &ExternalVolume, error: &DockerError) -> String {
    let words = error.to_string();
    let is_missing = matches!(error, DockerError::Missing(_)) || words.contains("looking up volume plugin");
    match is_missing {
        true => format!("Docker has no volume driver '{}' on this node ({})", volume.driver(), words.trim()),
        false => words.trim().to_owned(),
    }
}
