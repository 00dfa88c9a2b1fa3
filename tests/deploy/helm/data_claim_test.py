"""data-claim.yaml."""
from chart import ChartTest, main


class DataClaim(ChartTest):
    def test_made_and_kept(self):
        claim = self.one("PersistentVolumeClaim", "r-seqpar-data", {"data": {"size": "1Ti", "storageClass": "nfs",
                                                                            "accessMode": "ReadWriteMany"}})
        self.assertEqual(claim["metadata"]["annotations"], {"helm.sh/resource-policy": "keep"})
        self.assertEqual(claim["spec"], {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs",
                                         "resources": {"requests": {"storage": "1Ti"}}})
        self.assertIn("are kept when the release is uninstalled", self.result()["notes"])

    def test_or_one_that_exists(self):
        values = {"data": {"existingClaim": "mine"}}
        self.assertFalse([kind for kind, _ in self.render(values) if kind == "PersistentVolumeClaim"])
        for component in ("coordinator", "worker"):
            self.assertIn({"name": "data", "persistentVolumeClaim": {"claimName": "mine"}},
                          self.pod(component, values)[0]["volumes"])


if __name__ == "__main__":
    main()
