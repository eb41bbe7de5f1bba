"""The public names, once: `__init__.py` reads this list, and so do editors and type checkers."""

from robustmri.attacks import APGD as APGD
from robustmri.attacks import DDN as DDN
from robustmri.attacks import FMN as FMN
from robustmri.attacks import PGD as PGD
from robustmri.attacks import SPSA as SPSA
from robustmri.attacks import CarliniWagnerL2 as CarliniWagnerL2
from robustmri.attacks import Cascade as Cascade
from robustmri.attacks import DeepFool as DeepFool
from robustmri.attacks import ElasticNet as ElasticNet
from robustmri.attacks import HopSkipJump as HopSkipJump
from robustmri.attacks import SparsePGD as SparsePGD
from robustmri.attacks import Square as Square
from robustmri.attacks import Transfer as Transfer
from robustmri.attacks import Universal as Universal
from robustmri.attacks import add_universal as add_universal
from robustmri.attacks import bim as bim
from robustmri.attacks import cw as cw
from robustmri.attacks import fgsm as fgsm
from robustmri.attacks import learn_universal as learn_universal
from robustmri.attacks import standard as standard
from robustmri.core.errors import RobustMRIError as RobustMRIError
from robustmri.data.cohort import Cohort as Cohort
from robustmri.data.split import Split as Split
from robustmri.models.checkpoint import load_checkpoint as load_checkpoint
from robustmri.models.checkpoint import save_checkpoint as save_checkpoint
from robustmri.models.classifier import Classifier as Classifier
from robustmri.models.classifier import ClassifierSpec as ClassifierSpec
from robustmri.recipes import load_recipe as load_recipe
from robustmri.report import write_report as write_report
from robustmri.results.schema import load_result as load_result
from robustmri.threat.eps import parse_eps as parse_eps
from robustmri.threat.threat_model import ThreatModel as ThreatModel
from robustmri.verbs.ablate import ablate as ablate
from robustmri.verbs.cross_validate import cross_validate as cross_validate
from robustmri.verbs.evaluate import evaluate as evaluate
from robustmri.verbs.pool import pool as pool
from robustmri.verbs.prepare import prepare as prepare
from robustmri.verbs.reproduce import demo as demo
from robustmri.verbs.reproduce import reproduce as reproduce
from robustmri.verbs.train import harden as harden
from robustmri.verbs.train import train as train

__version__: str
